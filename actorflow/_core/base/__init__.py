"""What every floor uses: ids, errors, resources, the rows of the state API."""
