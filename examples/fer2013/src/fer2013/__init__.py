"""What does a network look at when it says "happy"? The camlens case study on FER2013."""
