"""What a machine is: cards, specs such as "4xV100", instance types, detection."""
