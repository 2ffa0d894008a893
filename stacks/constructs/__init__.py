"""Small parts that the stacks are made of."""
