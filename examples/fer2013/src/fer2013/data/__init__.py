"""Data: FER2013, its splits and duplicates, photographs of faces, and Tiny ImageNet."""
