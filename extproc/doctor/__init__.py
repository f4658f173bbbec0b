"""`holdfast doctor`: what of a model server works, what Holdfast repairs, and what stays broken."""
