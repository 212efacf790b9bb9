"""What eval_search.py asks and marks: texts of photos, queries with known answers, Immich's tables, the searches."""
