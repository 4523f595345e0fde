"""From a request to a launch: validate, plan, prepare."""
