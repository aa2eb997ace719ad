-- The three tables of a chat app, as the app made them. The bridge never alters them; `migrate` only adds triggers.

CREATE TABLE profiles (
    id         uuid PRIMARY KEY,
    first_name text,
    is_bot     boolean NOT NULL DEFAULT false
);

CREATE TABLE matches (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user1_id   uuid REFERENCES profiles,
    user2_id   uuid REFERENCES profiles,
    created_at timestamptz DEFAULT now()
);

CREATE TABLE messages (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    match_id   uuid REFERENCES matches,
    sender_id  uuid REFERENCES profiles,
    content    text,
    created_at timestamptz DEFAULT now()
);

-- An app reads a conversation in order, and so does the bridge.
CREATE INDEX messages_match_id_created_at ON messages (match_id, created_at);
