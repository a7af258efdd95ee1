"""All networks beside the slide deck's figures."""
