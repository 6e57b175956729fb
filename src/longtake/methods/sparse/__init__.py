"""Methods that compute a part of an attention."""
