"""The standard worker `mcp`: functions of the project as tools of agents, over the Model Context Protocol."""
