"""Hosts, devices, random streams, clocks and the screen: what a run runs on."""
