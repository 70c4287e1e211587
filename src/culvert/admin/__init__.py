"""The admin endpoint: metrics, health, status and actions over HTTP, for this daemon alone."""
