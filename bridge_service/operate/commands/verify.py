"""`verify`: accounts for every message to a bot."""

from dataclasses import asdict

from bridge_service.machine.ledger import open_ledger
from bridge_service.operate.output import Output, coloured, counted
from bridge_service.settings import Settings


def run(settings: Settings, output: Output) -> bool:
    """Return whether no message is unaccounted for or doubled, in the tables that the app uses."""
    with open_ledger(settings.database_url, "verify") as ledger:
        # First, because `verify` fails if a table was renamed, and these words say why.
        astray = [table.fault for table in ledger.installed().tables.values() if table.fault]
        for words in astray:
            output.complain(f"the bridge is not bound to the app's present tables: {words}; `check` says what to do")
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
    return not accounts.unaccounted and not accounts.doubled and not astray
