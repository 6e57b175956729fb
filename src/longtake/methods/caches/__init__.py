"""Methods that do not compute again what has hardly changed since an earlier step."""
