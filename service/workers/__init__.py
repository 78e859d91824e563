"""The worker processes: started, spoken to, supervised; and what runs inside one."""
