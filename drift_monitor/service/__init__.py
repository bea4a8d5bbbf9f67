"""The long-running half: schedule, worker children, store, outbox, metrics, pages."""
