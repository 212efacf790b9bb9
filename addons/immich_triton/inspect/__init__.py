"""What somebody sees who looks: content views, comments, commands of mitmweb, comparison and its report."""
