"""Tables, plots and drawings made from records alone; imports no JAX."""
