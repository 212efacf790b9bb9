"""The model repository: what is written into it, and the sources it is made from."""
