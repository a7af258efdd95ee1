"""What a training run needs to know, and the configurations of this project."""
