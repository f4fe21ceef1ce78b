"""What an operator looks at: dashboards and alert rules made from the metrics' own definitions, and who runs them."""
