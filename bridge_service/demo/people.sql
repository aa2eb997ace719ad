-- Who is there in the demo and in the tests: two bots and a few users, under ids that never change.

INSERT INTO profiles (id, first_name, is_bot) VALUES
    ('b0000000-0000-4000-8000-000000000001', 'Camille', true),
    ('b0000000-0000-4000-8000-000000000002', 'Paul',    true),
    ('a0000000-0000-4000-8000-000000000001', 'Léa',     false),
    ('a0000000-0000-4000-8000-000000000002', 'Hugo',    false),
    ('a0000000-0000-4000-8000-000000000003', 'Inès',    false),
    ('a0000000-0000-4000-8000-000000000004', 'Karim',   false);
