"""The process `dramatiq bridge_service`: claims turns, asks the responder, hands in drafts, delivers them."""
