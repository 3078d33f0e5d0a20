"""What each device needs, and how its sessions are made."""
