"""What ``rest-backend doctor`` looks at, one topic a module, and the report it writes."""
