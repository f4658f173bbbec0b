"""Model servers' streams, put right, whatever their dialect or release. Pure."""
