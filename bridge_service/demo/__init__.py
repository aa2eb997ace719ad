"""The bridge without an app: servers that the demo starts, the app's tables, and people in them."""
