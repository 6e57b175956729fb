"""Systems that write a video token by token, one module each."""
