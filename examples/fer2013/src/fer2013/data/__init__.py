"""FER2013's faces: read from files, split, searched for copies; and faces in photographs."""
