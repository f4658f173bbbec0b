"""The Responses API's vocabulary: requests, items, tools, events, the response object, errors. Pure."""
