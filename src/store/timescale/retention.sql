select apply_retention()
