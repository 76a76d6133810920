# SPDX-License-Identifier: Apache-2.0
"""What lies on the storage, and whose it is."""

from slackwater.providers._conformance.ground import Ground, read, write
from slackwater.providers._conformance.promises import promise


@promise
def the_document_is_found(ground: Ground) -> None:
    """A document lies beside the copies, is found again whole, by its owner alone, and can be written anew."""
    session = ground.session()
    copies = ground.backup(session)
    ground.check([each.document for each in ground.found()] == [None], "a copy without a document is not found as such")
    document = ground.document(session, copies)
    for _ in range(2):
        ground.provider.write_document(document)
    (found, *more) = ground.found()
    ground.check(not more, "one session is found more than once on one filesystem")
    ground.check(found.document == document, "the document is not found as it was written")
    ground.check(len(found.places) == len(copies), f"{found.places} are not {len(copies)} copies")
    other = ground.factory("conformance-another")
    ground.check(not [each for each in other.find() if each.session == session], "another owner finds it")
    for pinned in (True, True, False, False):
        ground.provider.pin(copies, session, pinned=pinned)
        ground.check(ground.found()[0].pinned is pinned, f"a pin that is {pinned} is not found so")


@promise
def what_is_anothers_is_left_alone(ground: Ground) -> None:
    """A provider of another owner neither deletes a copy nor makes one in its place."""
    write(ground.paths[0], "rows", "one")
    session = ground.session()
    copies = ground.backup(session)
    other = ground.factory("conformance-another")
    for effect in (other.delete_effect(copies, session), other.place_effect(copies[0].volume, session)):
        ground.raises(effect.make, f"{effect.kind} of another owner was made")
    for effect in (other.snapshot_effect(copies[0].volume, session), other.place_effect(copies[0].volume, session)):
        ground.raises(effect.undo, f"{effect.kind} was undone by another owner")
    ground.check([ground.provider.altered(copy) for copy in copies] == [""] * len(copies), "a copy was altered")


@promise
def deleting_takes_its_own(ground: Ground) -> None:
    """Deleting takes a session's copies and nothing else, again when called again; it cannot be undone."""
    write(path := ground.paths[0], "rows", "one")
    first, second = ground.session(), ground.session()
    gone, kept = ground.backup(first), ground.backup(second)
    ground.provider.write_document(ground.document(first, gone))
    delete = ground.stored(ground.provider.delete_effect(gone, first))
    for _ in range(2):
        delete.make()
    delete.undo()
    ground.check(all(ground.provider.altered(copy) for copy in gone), "a deleted copy is as it was made")
    ground.check(not any(ground.provider.altered(copy) for copy in kept), "another session's copy was altered")
    ground.check([each.session for each in ground.found()] == [second], "the deleted session is still found")
    ground.check(read(path, "rows") == "one", "the live volume was changed")


@promise
def a_clone_takes_nobodys_place(ground: Ground) -> None:
    """A clone that is to be looked at is writable, leaves copy and volume alone, and outlives its copy."""
    write(path := ground.paths[0], "rows", "one")
    session, trying = ground.session(), ground.session()
    copies = ground.backup(session)
    ground.places([copies[0].volume], trying)
    facts = ground.make(ground.provider.clone_effect(copies[0], trying))
    clone = ground.provider.copy(copies[0].volume, trying, facts)
    with ground.provider.reach(clone) as root:
        write(root, "rows", "tried")
    ground.check(ground.provider.altered(copies[0]) == "", "writing to a clone altered its copy")
    ground.check(read(path, "rows") == "one", "writing to a clone changed the live volume")
    ground.check(not ground.provider.mounted_at(clone), "a clone is mounted that nobody mounted")
    order = ground.provider.mount_order(clone)
    ground.check(order.source and order.root.startswith("/"), f"{order} cannot be mounted")
    ground.provider.delete_effect(copies, session).make()
    with ground.provider.reach(clone) as root:
        ground.check(read(root, "rows") == "tried", "a clone went with its copy")
    ground.provider.delete_effect([clone], trying).make()
    ground.raises(lambda: ground.provider.mount_order(clone), "a deleted clone can be mounted")
