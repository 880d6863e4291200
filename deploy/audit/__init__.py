"""What is known to be dangerous in the packages that are locked: `python -m deploy.audit` (`make audit`)."""
