"""`verify`: every message to a bot, accounted for."""

from dataclasses import asdict

from bridge_service.ledger import open_ledger
from bridge_service.output import Output, coloured, counted
from bridge_service.settings import Settings


def run(settings: Settings, output: Output) -> bool:
    """Return whether no message is unaccounted for or doubled."""
    with open_ledger(settings.database_url, "verify") as ledger:
        accounts = ledger.verify(settings.retention_days)
    numbers = asdict(accounts)
    del numbers["faults"]
    output.document(numbers)
    faulty = {"unaccounted", "doubled"}
    cells = [coloured(number, good=not number) if name in faulty else number for name, number in numbers.items()]
    output.table(list(numbers), [cells])
    for fault in accounts.faults:
        output.complain(f"{fault.message_id}: {fault.fault}")
    if accounts.unaccounted:
        remedy = "`check` looks for the cause, `replay` captures what was missed"
        output.complain(f"unaccounted for: {counted(accounts.unaccounted, 'message')}; {remedy}")
    if accounts.doubled:
        output.complain(f"answered twice: {counted(accounts.doubled, 'message')}; `why` tells each one's story")
    return not accounts.unaccounted and not accounts.doubled
