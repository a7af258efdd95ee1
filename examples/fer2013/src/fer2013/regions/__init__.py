"""The study of regions: which parts of the face heatmaps highlight, and which the score needs."""
