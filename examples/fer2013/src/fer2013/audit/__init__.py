"""What is wrong with the data: doubtful labels, beside the copies and blanks of fer2013.data."""
