"""Methods that change how two predictions guide one another, or which predictions are made."""
