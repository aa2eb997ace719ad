-- The people and bots that type now, in a chat app's table. The bridge works without it.

CREATE TABLE typing_events (
    match_id   uuid NOT NULL REFERENCES matches,
    user_id    uuid NOT NULL REFERENCES profiles,
    is_typing  boolean NOT NULL DEFAULT false,
    started_at timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (match_id, user_id)
);
