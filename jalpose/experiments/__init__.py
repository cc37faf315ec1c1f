"""Methods and seeds: what is to be run, by whom, and the runs themselves."""
