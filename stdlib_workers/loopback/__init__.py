"""HTTP that only this machine reaches: the socket, who may ask, and uvicorn on a thread of its own."""
