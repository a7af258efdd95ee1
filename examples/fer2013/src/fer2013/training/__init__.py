"""Training of the emotion networks, and pretraining of VGG19 on photographs."""
