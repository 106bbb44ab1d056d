//! Endpoints from YAML and CSV text, all problems at once with file and line.
