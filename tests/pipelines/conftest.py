"""What is in `projects` runs in the environments of the pipelines, which ours cannot import."""

collect_ignore = ["projects"]
