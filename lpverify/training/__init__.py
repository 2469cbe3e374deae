"""Training the models under test: losses, schedules and a loop over the bounds and attacks of the package."""
