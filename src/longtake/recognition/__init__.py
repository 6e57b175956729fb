"""Systems that say what images and videos show."""
