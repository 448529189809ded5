"""What the Makefile uses: finding a Python, making an environment, and the reference pages made from the code."""
