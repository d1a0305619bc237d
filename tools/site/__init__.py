"""What the documentation site is made of besides the Markdown in docs/."""
