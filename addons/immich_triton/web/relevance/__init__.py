"""How well the text in a photo fits the words of a query, without a database: words cut here, text read by the API."""
