"""Who answers with labels: the data set in simulation, people outside it."""
