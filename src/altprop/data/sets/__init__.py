"""The data sets, one file each, and the base classes of those kept in memory and those streamed from image files."""
