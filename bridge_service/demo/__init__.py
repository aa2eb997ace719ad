"""Everything that shows the bridge without an app: real embedded servers and the app's tables."""
