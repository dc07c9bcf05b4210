"""What the HTML pages of this project share: their style, their template, their figures."""
